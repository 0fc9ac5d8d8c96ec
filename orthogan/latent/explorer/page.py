"""``orthogan explore``: the live page, a gradio app on this machine; needs the extra ``explore``."""

from __future__ import annotations

import socket
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

from torch import nn

from orthogan.errors import UserError, install
from orthogan.io.read import printable
from orthogan.latent.directions import Directions
from orthogan.latent.explorer import shown
from orthogan.latent.explorer.session import Explorer
from orthogan.latent.explorer.state import ExplorerState, View, reach_of, view_of
from orthogan.rng import derive

TITLE = "Latent explorer"
SEED = 7
HOST = "127.0.0.1"
PORT = 7860
LARGEST_UPLOAD = "16mb"
_MOST_SEEDS = 1_000_000


@dataclass(frozen=True)
class Served:
    """A page being served: its ``url``, and how to end it."""

    url: str
    page: Any

    def close(self) -> None:
        """Stop serving and free the port."""
        self.page.close(verbose=False)


def explore(
    generator: nn.Module,
    directions: Directions,
    *,
    class_names: Sequence[str] = (),
    title: str = TITLE,
    host: str = HOST,
    port: int = PORT,
    open_browser: bool = False,
    block: bool = True,
) -> Served:
    """Serve a page on which ``directions`` of ``generator`` are tried out, and print its address.

    Nothing leaves the machine: no telemetry, no public link, no fonts or scripts from elsewhere. ``host``: the
    default lets only this machine in; "0.0.0.0" opens the page to the whole network, by its address and not by a
    name. Requests that another web page makes are refused. ``port``: 0 for any free one.
    ``block``: serve until Ctrl-C, then return; without it return at once, and ``close()`` ends it.

    Raises ``UserError`` without gradio, for directions that do not fit, or a port or host that cannot be had.
    """
    if not 0 <= port < 2**16:
        raise UserError(f"--port {port}: between 0 (any free one) and 65535")
    number = _free_port(host, port)
    page = build_page(generator, directions, class_names=class_names, title=title)
    from orthogan.latent.explorer.guard import guarded  # of gradio's own server

    try:
        page.launch(
            server_name=host,
            server_port=number,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,  # it would talk to huggingface.co
            max_file_size=LARGEST_UPLOAD,
            app_kwargs=guarded(host),
            theme=_theme(),
            head=f"<style>{_part('page.css')}</style>",
        )
    except Exception as error:  # gradio has errors of its own for a server that does not start
        page.close(verbose=False)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "share" in reason:  # gradio's advice for a page that does not answer: a public link
            reason = (
                "the page does not answer. The machine may be too busy: try again. Or a proxy takes the requests: set "
                f"NO_PROXY={host}"
            )
        raise UserError(f"cannot serve on {host}:{number}: {reason}") from error
    served = Served(page.local_url, page)
    print(f"{title}: {served.url}" + ("  (Ctrl-C ends it)" if block else ""), flush=True)
    if open_browser:
        webbrowser.open(served.url)
    if block:
        try:
            while True:
                time.sleep(0.2)
        except KeyboardInterrupt:
            print()
        finally:
            served.close()
    return served


def build_page(
    generator: nn.Module, directions: Directions, *, class_names: Sequence[str] = (), title: str = TITLE
) -> Any:
    """The page as ``gradio.Blocks``, not yet served; ``explore`` adds the look and serves it.

    Raises ``UserError`` without gradio, or for directions that do not fit the generator.
    """
    gr = _gradio()
    explorer = Explorer(generator, class_names=class_names)
    start, told = explorer.bench(directions)
    for line in told:
        print(f"warning: {line}")
    label = explorer.first_label(SEED)
    view = View(SEED, label)

    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)) as page:
        bench = gr.State(start)
        heading = _custom(gr, "heading", shown.heading(explorer, start, title))
        with gr.Row(elem_id="desk"):
            with gr.Column(elem_id="left"):
                stage = _custom(gr, "stage", shown.stage(explorer, start, view))
                with gr.Row(elem_id="base"):
                    seed = gr.Number(SEED, label="Seed", min_width=90, elem_id="seed")  # view_of checks it
                    before = gr.Button("‹", elem_id="before", min_width=40, scale=0)
                    after = gr.Button("›", elem_id="after", min_width=40, scale=0)
                    other = gr.Button("Random", elem_id="other", min_width=84, scale=0)
                    named = gr.Dropdown(
                        [(name, number) for number, name in enumerate(explorer.class_names)],
                        value=label,
                        label="Class",
                        visible=label is not None,
                        min_width=130,
                        elem_id="class",
                    )
                    truncation = gr.Slider(0, 1, 1, step=0.05, label="Truncation", min_width=190, elem_id="truncation")
                with gr.Row(elem_id="files"):
                    png = gr.Button("Save picture", elem_id="png", min_width=100)
                    file = gr.Button("Save directions", elem_id="file", min_width=120)
                    load = gr.UploadButton(
                        "Load directions", file_types=[".safetensors"], elem_id="load", min_width=120, size="lg"
                    )
            with gr.Column(elem_id="right"):
                rows = _custom(gr, "list", shown.listed(start, start_at=shown.strongest(start)))
                with gr.Row(elem_id="keep"):
                    name = gr.Textbox(
                        show_label=False,
                        container=False,
                        placeholder="name of the present edit",
                        max_lines=1,
                        min_width=150,
                        elem_id="edit",
                    )
                    keep = gr.Button("Keep as a direction", elem_id="save", min_width=170, scale=0)
        download = _custom(gr, "download", None, visible="hidden")

        state = [bench, rows, seed, named, truncation]
        quiet = {"show_progress": "hidden", "api_visibility": "private"}

        def show(
            bench: ExplorerState, listed: dict, seed: float | None, label: int | None, truncation: float | None
        ) -> Any:
            if seed is None or truncation is None:  # a field that is being written in
                return gr.skip()
            with _told(gr):
                return shown.stage(explorer, shown.renamed(bench, listed), view_of(listed, seed, label, truncation))

        def save(bench: ExplorerState, listed: dict, *rest: Any) -> Any:
            *controls, name = rest
            with _told(gr):
                named = shown.renamed(bench, listed)
                grown = explorer.saved(named, view_of(listed, *controls), name)
            gr.Info(f"'{escape(name.strip())}' is now a direction; 'Save directions' keeps it in a file", duration=4)
            at = len(grown.rows) - 2
            offsets = [0.0] * len(grown.rows)
            offsets[at] = 1.0  # the same picture
            listed = shown.listed(grown, start_at=at, reach=listed["reach"], offsets=offsets)
            return grown, {**listed, "dirty": True}, ""

        def load_file(path: str, bench: ExplorerState, listed: dict) -> Any:
            with _told(gr):
                fresh, told = explorer.load(path, shown.renamed(bench, listed))
            for line in told:
                gr.Warning(escape(line))
            listed = shown.listed(fresh, start_at=shown.strongest(fresh), reach=listed["reach"])
            return fresh, {**listed, "dirty": bool(fresh.saved)}, shown.heading(explorer, fresh, title)

        def save_png(bench: ExplorerState, listed: dict, *controls: Any) -> Any:
            with _told(gr):
                bench, view = shown.renamed(bench, listed), view_of(listed, *controls)
                return shown.sent(
                    f"seed{view.seed}{'-edit' if any(view.offsets) else ''}.png", explorer.png(bench, view)
                )

        def save_gif(bench: ExplorerState, listed: dict, *controls: Any) -> Any:
            with _told(gr):
                bench, view = shown.renamed(bench, listed), view_of(listed, *controls)
                index = int(listed["current"])
                made = explorer.loop(bench, index, view, reach_of(listed))
                return shown.sent(f"{shown.plain(bench.row(index).names[0])}-seed{view.seed}.gif", made)

        def save_file(bench: ExplorerState, listed: dict) -> Any:
            with _told(gr):
                return shown.sent("directions.safetensors", explorer.file(shown.renamed(bench, listed)))

        moved = [rows.input, seed.change, named.change, truncation.change]
        gr.on(moved, show, state, stage, trigger_mode="always_last", **quiet)
        before.click(lambda seed: max(0, _whole(seed) - 1), seed, seed, **quiet)
        after.click(lambda seed: max(0, _whole(seed) + 1), seed, seed, **quiet)
        other.click(_another, seed, seed, **quiet)
        grown = gr.on([keep.click, name.submit], save, [*state, name], [bench, rows, name], **quiet)
        grown.success(show, state, stage, **quiet)
        loaded = load.upload(load_file, [load, bench, rows], [bench, rows, heading], **quiet)
        loaded.success(show, state, stage, **quiet)
        png.click(save_png, state, download, **quiet)
        rows.select(save_gif, state, download, **quiet)
        file.click(save_file, [bench, rows], download, **quiet)
    return page


def _another(seed: float | None) -> int:
    """A seed that looks like chance and is a function of the present one, so that a session can be repeated."""
    return derive(_whole(seed), "another seed") % _MOST_SEEDS


def _whole(seed: float | None) -> int:
    """The whole number in the field of the seed, or below what is there."""
    return int(seed) if seed is not None and abs(seed) < 2**63 else 0


@contextmanager
def _told(gr: Any) -> Iterator[None]:
    """Input that cannot be used is said on the page, in the words of the command line; gradio takes them for HTML."""
    try:
        yield
    except UserError as error:
        raise gr.Error(escape(str(error)), print_exception=False) from error


def _custom(gr: Any, what: str, value: Any, **options: Any) -> Any:
    """One of the page's own components, of ``parts``; only its script sees ``value``, no template."""
    return gr.HTML(
        value,
        html_template=_part(f"{what}.html"),
        js_on_load=_part(f"{what}.js"),
        apply_default_css=False,
        elem_id=what,
        **options,
    )


def _part(name: str) -> str:
    return resources.files("orthogan.latent.explorer").joinpath("parts", name).read_text(encoding="utf-8")


def _theme() -> Any:
    """Gradio's plainest theme in the colours of the traversal page, with the system's own fonts."""
    gr = _gradio()
    light, dark = {}, {}
    for key, (day, night) in {
        "body_background_fill": ("#fafafa", "#17171a"),
        "body_text_color": ("#26262b", "#ececf0"),
        "body_text_color_subdued": ("#5d5d66", "#a6a6b0"),
        "block_background_fill": ("#ffffff", "#222227"),
        "border_color_primary": ("#d9d9de", "#3a3a42"),
        "slider_color": ("#b93a14", "#ff8a5c"),
        "button_secondary_background_fill": ("#ffffff", "#222227"),
        "button_secondary_background_fill_hover": ("#f0f0f2", "#2c2c33"),
        "button_secondary_border_color": ("#d9d9de", "#3a3a42"),
        "input_background_fill": ("#ffffff", "#222227"),
    }.items():
        light[key], dark[f"{key}_dark"] = day, night
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gr.themes.Base(primary_hue="orange", neutral_hue="zinc", **fonts).set(**light, **dark)


def _free_port(host: str, port: int) -> int:
    """``port`` itself, or a free one for 0. Raises ``UserError`` where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), port))
            return probe.getsockname()[1]
    except (OSError, TypeError, ValueError) as error:  # the last two: a name that no host can have
        reason = getattr(error, "strerror", None) or printable(error)
        raise UserError(f"cannot serve on {printable(host)}:{port}: {reason}; try another --port or --host") from error


def _gradio() -> Any:
    """gradio, wanted only here: importing it takes seconds."""
    try:
        import gradio
    except ImportError as error:
        raise UserError(f"the live page needs gradio: {install('explore')}") from error
    return gradio
