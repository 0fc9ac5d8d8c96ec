// Hands a file to the browser: body of a function (props, watch). props.value: {name, uri, stamp}, or null at first.
"use strict";
watch("value", () => {
  const link = document.createElement("a");
  link.href = props.value.uri;
  link.download = props.value.name;
  document.body.append(link);
  link.click();
  link.remove();
  if (props.value.name.endsWith(".safetensors")) { document.dispatchEvent(new Event("orthogan-directions-kept")); }
});
