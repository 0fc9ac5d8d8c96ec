// Title and origin of the directions: body of a function (element, props, watch). props.value: {title, about}.
// As text by hand: gradio's templates would run what stands between ${ and } in a value.
"use strict";
function paint() {
  element.querySelector("h1").textContent = props.value.title;
  element.querySelector("p").textContent = props.value.about;
}
watch("value", paint);
paint();
