// The pictures: body of a function (element, props, watch). props.value: {now, base, difference: data URIs; caption, change}.
"use strict";
function paint() {
  const value = props.value;
  ["now", "base", "difference"].forEach((key) => { element.querySelector("." + key + " img").src = value[key]; });
  element.querySelector(".now img").alt = value.caption;
  element.querySelector(".now figcaption").textContent = value.caption;
  element.querySelector(".difference figcaption").textContent = "difference " + value.change;
}
watch("value", paint);
paint();
