"""The definition of a study: methods x settings x seeds, the measures of each run, and the claims to check."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orthogan.config.schema import Config
from orthogan.registry import Registry
from orthogan.studies.values import MeasureResult

if TYPE_CHECKING:
    from orthogan.studies.finished import FinishedRun

Keys = Mapping[str, Any]  # dotted key of the config -> value
ScaleName = Literal["smoke", "cpu", "decide", "full"]
SCALES: tuple[ScaleName, ...] = ("smoke", "cpu", "decide", "full")
EVERY = "*"  # the setting of a term that applies to every setting
NAME = re.compile(r"[a-z0-9][a-z0-9.+=,_-]*")  # valid as the name of a folder


@dataclass(frozen=True)
class Measure:
    """A function of a finished run. A new ``version`` measures finished runs again without training them again.

    Example:
        >>> from orthogan.studies import Measure, MeasureResult, Value
        >>> measure = Measure("steps", lambda run: MeasureResult({"steps": Value(100.0)}))
        >>> measure.version
        1
    """

    name: str
    of: Callable[[FinishedRun], MeasureResult]
    version: int = 1

    @property
    def identity(self) -> str:
        """Return the identity, such as ``error`` or ``error v2``."""
        return self.name if self.version == 1 else f"{self.name} v{self.version}"


# (method -> folder of its measured run of the first seed, the .png to write) -> that file
Overlay = Callable[[Mapping[str, Path], Path], Path]


@dataclass(frozen=True)
class Method:
    """A row of the table: its config keys, over those of scale and setting, or a function of the setting's name.

    Example:
        >>> from orthogan.studies import Method
        >>> Method({"model.discriminator.norm.kind": "stable_rank"}, note="SRN").keys
        {'model.discriminator.norm.kind': 'stable_rank'}
    """

    keys: Keys | Callable[[str], Keys]
    note: str = ""

    def over(self, setting: str) -> Keys:
        """Return the config keys in ``setting``."""
        return self.keys(setting) if callable(self.keys) else self.keys


@dataclass(frozen=True)
class Setting:
    """A net or a data set in which all methods are compared, with a separate table.

    Example:
        >>> from orthogan.studies import Setting
        >>> Setting({"data.labels": True}, note="with classes").note
        'with classes'
    """

    keys: Keys = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Search:
    """Candidates for the hyperparameters of a family of methods, compared before any run of the study.

    The first method of the family is trained once with each candidate, in each setting, on a part of the training
    images; the rest of them are its test images, so that the test images of the study are not looked at. All methods
    of the family then get the candidate with the best ``number``.

    Args:
        methods: the family.
        candidates: name -> config keys, which override those of the method.
        number: the number of a measure that decides; it needs a better direction.
        keys: config keys of the search only, over those of the candidates.

    Example:
        >>> from orthogan.studies import Search
        >>> rates = {f"lr={lr:g}": {"optimizer.classifier.lr": lr} for lr in (0.01, 0.03, 0.1)}
        >>> list(Search(("plain",), rates, "test error, final [%]").candidates)
        ['lr=0.01', 'lr=0.03', 'lr=0.1']
    """

    methods: tuple[str, ...]
    candidates: Mapping[str, Keys]
    number: str
    keys: Keys = field(default_factory=lambda: {"data.holdout": 0.1})


@dataclass(frozen=True)
class Scale:
    """The size of a study: the config that all its runs build on, its settings, and the default number of seeds.

    Args:
        methods: name -> config keys of the methods that are run at this scale, over their own; None for all methods.
        searches: made before the runs, at most one per method.

    Example:
        >>> from orthogan.studies import Scale, Setting
        >>> scale = Scale({"training.steps": 800}, settings={"gray": Setting({"data.channels": 1})}, seeds=3)
        >>> list(scale.settings)
        ['gray']
    """

    keys: Keys
    settings: Mapping[str, Setting] = field(default_factory=lambda: {"": Setting()})
    seeds: int = 3
    note: str = ""
    methods: Mapping[str, Keys] | None = None
    searches: Sequence[Search] = ()


@dataclass(frozen=True)
class Term:
    """``factor`` times a number of a method's run.

    Example:
        >>> from orthogan.studies import Term
        >>> Term("FID", "srn", factor=-1.0).setting
        '*'
    """

    number: str
    method: str
    factor: float = 1.0
    setting: str = EVERY


@dataclass(frozen=True)
class Hypothesis:
    """A sum of terms, computed per seed, and the side of ``bound`` where the claim expects it.

    Terms with the setting ``EVERY`` are tested once in each setting of the scale. ``margin``: the largest difference
    from ``bound`` that does not matter; if the interval lies within it, the finding is that there is no difference.

    Example:
        >>> from orthogan.studies import Hypothesis, Term
        >>> fid = Hypothesis("FID of srn below sn", (Term("FID", "srn"), Term("FID", "sn", factor=-1.0)), "below")
        >>> fid.bound
        0.0
    """

    says: str
    terms: tuple[Term, ...]
    expected: Literal["below", "above"]
    bound: float = 0.0
    margin: float | None = None


@dataclass(frozen=True)
class Claim:
    """A published claim, its source (and whether it was read), and the hypotheses that test it here.

    ``published``: the paper's numbers for it, in a few words.

    Example:
        >>> from orthogan.studies import Claim, lower
        >>> Claim("SRN lowers the FID.", "Sanyal et al. 2020, table 2", (lower("FID", "srn", than="sn"),)).text
        'SRN lowers the FID.'
    """

    text: str
    source: str
    contrasts: tuple[Hypothesis, ...]
    published: str = ""


def lower(number: str, method: str, than: str, setting: str = EVERY, *, margin: float | None = None) -> Hypothesis:
    """Expect ``number`` of ``method`` below that of the method ``than``; ``margin``: see ``Hypothesis``.

    Example:
        >>> from orthogan.studies import lower
        >>> lower("FID", "srn", than="sn").expected
        'below'
    """
    terms = (Term(number, method, 1.0, setting), Term(number, than, -1.0, setting))
    return Hypothesis(f"{number}: {method} less {than}, below 0", terms, "below", margin=margin)


def higher(number: str, method: str, than: str, setting: str = EVERY, *, margin: float | None = None) -> Hypothesis:
    """Expect ``number`` of ``method`` above that of the method ``than``; ``margin``: see ``Hypothesis``.

    Example:
        >>> from orthogan.studies import higher
        >>> higher("accuracy", "rotation", than="plain").expected
        'above'
    """
    terms = (Term(number, method, 1.0, setting), Term(number, than, -1.0, setting))
    return Hypothesis(f"{number}: {method} less {than}, above 0", terms, "above", margin=margin)


def under(number: str, method: str, bound: float, setting: str = EVERY) -> Hypothesis:
    """Expect ``number`` of ``method`` below ``bound``.

    Example:
        >>> from orthogan.studies import under
        >>> under("FID", "srn", 50.0).bound
        50.0
    """
    return Hypothesis(f"{number}: {method}, below {bound:g}", (Term(number, method, 1.0, setting),), "below", bound)


def trained(config: Config) -> Path:
    """Train or resume a run."""
    from orthogan.training import train  # imported on first use: listing studies does not need it

    return train(config)


@dataclass(frozen=True)
class Study:
    """A study.

    Args:
        about: a paragraph at the top of the report: what is compared, and what it cannot show.
        baseline: the method that the others are compared with on equal seeds.
        run: makes or resumes the run of a config, as ``orthogan.training.train`` does, with its exceptions.
        needs: called first; each raises ``UserError`` if something is not installed.
        imports: modules that every run needs and that take long to import: they are imported once, before the runs.
        overlays: caption -> a picture of all methods of a setting together.

    Raises:
        ValueError: a name that cannot name a folder, or an unknown method or setting.

    Example:
        >>> from orthogan.studies import get_study
        >>> study = get_study("opt")
        >>> study.baseline, "smoke" in study.scales
        ('baseline', True)
    """

    name: str
    title: str
    about: str
    baseline: str
    methods: Mapping[str, Method]
    scales: Mapping[ScaleName, Scale]
    measures: Sequence[Measure]
    claims: Sequence[Claim] = ()
    run: Callable[[Config], Path] = trained
    needs: Sequence[Callable[[], object]] = ()
    imports: Sequence[str] = ()
    overlays: Mapping[str, Overlay] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = [name for scale in self.scales.values() for name in scale.settings]
        for name in (self.name, *self.methods, *(name for name in settings if name)):
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r}: use lowercase letters, digits and . + - = , _ only, since it names a folder"
                )
        for scale in self.scales.values():
            if "" in scale.settings and len(scale.settings) > 1:
                raise ValueError(f"{self.name}: a setting without a name must be the only one")
            searched = [method for search in scale.searches for method in search.methods]
            for method in (*(scale.methods or ()), *searched):
                if method not in self.methods:
                    raise ValueError(f"{self.name}: no method {method!r}, only {', '.join(self.methods)}")
            if scale.methods is not None and self.baseline not in scale.methods:
                raise ValueError(f"{self.name}: a scale lacks the baseline {self.baseline!r}")
            if len({*searched}) < len(searched):
                raise ValueError(f"{self.name}: a method is in two searches of a scale")
            for name in (name for search in scale.searches for name in search.candidates):
                if not NAME.fullmatch(name):
                    raise ValueError(f"{name!r}: use lowercase letters, digits and . + - = , _ only")
        if self.baseline not in self.methods:
            raise ValueError(
                f"{self.name}: the baseline {self.baseline!r} is not one of the methods {', '.join(self.methods)}"
            )
        identities = [measure.name for measure in self.measures]
        if len({*identities}) < len(identities):
            raise ValueError(f"{self.name}: two measures have the same name: {', '.join(identities)}")
        for term in (term for claim in self.claims for contrast in claim.contrasts for term in contrast.terms):
            if term.method not in self.methods:
                raise ValueError(
                    f"{self.name}: a claim names {term.method!r}, not one of the methods {', '.join(self.methods)}"
                )
            if term.setting not in (EVERY, *settings):
                raise ValueError(f"{self.name}: a claim names the setting {term.setting!r}, which no scale has")

    def at(self, scale: ScaleName) -> Study:
        """Return the study at one scale: with its methods and settings, and the comparisons of the claims among them.

        It is the whole study if the scale has all methods.
        """
        chosen = self.scales[scale]
        if chosen.methods is None:
            return self
        methods = {
            name: Method(_over(self.methods[name], keys), self.methods[name].note)
            for name, keys in chosen.methods.items()
        }
        places = {EVERY, *chosen.settings}

        def has(contrast: Hypothesis) -> bool:
            return all(term.method in methods and term.setting in places for term in contrast.terms)

        kept = [replace(claim, contrasts=tuple(filter(has, claim.contrasts))) for claim in self.claims]
        return replace(
            self,
            methods=methods,
            scales={scale: replace(chosen, methods=None)},
            claims=[claim for claim in kept if claim.contrasts],
        )


def _over(method: Method, keys: Keys) -> Callable[[str], Keys]:
    return lambda setting: {**method.over(setting), **keys}


def _adopt(thing: Any) -> Study:
    if not isinstance(thing, Study):
        raise TypeError(f"it is a {type(thing).__name__}, not an orthogan.studies.Study")
    return thing


STUDIES: Registry[Study] = Registry("study", "orthogan.studies.papers", adopt=_adopt)


def get_study(name: str) -> Study:
    """Return the study of that name, or the one that ``module:STUDY`` names.

    Raises:
        UserError: there is no such study, or ``module:STUDY`` is not a study.

    Example:
        >>> from orthogan.studies import get_study
        >>> get_study("srn-gan").name
        'srn-gan'
    """
    return STUDIES.get(name)


def listing() -> str:
    """Return a text with the title of each study and its size at each scale.

    Example:
        >>> from orthogan.studies import listing
        >>> "opt" in listing()
        True
    """
    lines = []
    for name, study in STUDIES.items():
        lines.append(f"{name}: {study.title}")
        for scale_name, scale in study.scales.items():
            methods = len(study.at(scale_name).methods)
            runs = methods * len(scale.settings) * scale.seeds
            where = f" x {len(scale.settings)} settings" if len(scale.settings) > 1 else ""
            seeds = "1 seed" if scale.seeds == 1 else f"{scale.seeds} seeds"
            tried = sum(len(search.candidates) for search in scale.searches) * len(scale.settings)
            searched = f", after {tried} runs of a search" if tried else ""
            lines.append(
                f"  {scale_name:<6} {methods} methods{where} x {seeds} = {runs} runs{searched}. {scale.note}".rstrip()
            )
    return "\n".join(lines)
