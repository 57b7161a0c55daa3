"use strict";
// Images are enlarged in a dialog, which the browser closes on Esc; arrow keys step through the images.
const buttons = Array.from(document.querySelectorAll("button.enlarge"));
const dialog = document.getElementById("enlarged");
let current = 0;

function show(position) {
  current = (position + buttons.length) % buttons.length;
  const source = buttons[current].querySelector("img");
  const target = dialog.querySelector("img");
  target.src = source.src;
  target.alt = source.alt;
  dialog.querySelector("span").textContent = source.alt;
}

buttons.forEach((button, position) =>
  button.addEventListener("click", () => {
    show(position);
    dialog.showModal();
  }),
);
dialog.addEventListener("click", (event) => {
  const step = event.target.dataset.step;
  if (step) show(current + Number(step));
  else if (event.target === dialog || "close" in event.target.dataset) dialog.close();
});
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") show(current - 1);
  if (event.key === "ArrowRight") show(current + 1);
});
// Return the keyboard focus to the image that was shown last.
dialog.addEventListener("close", () => buttons[current].focus());
