// An invisible part of a panel. It says that the panel is on somebody's screen: when it comes there, whenever the kernel
// asks, and when it goes. And it helps who has the keyboard alone.
function careForTheKeyboard(panel) {
  // Else an arrow key or a letter in a list of choices would be a command of the Lab, such as X, which cuts the cell.
  const keepToUs = (event) => event.ctrlKey || event.metaKey || event.stopPropagation(); // Ctrl+S saves the notebook
  for (const kind of ["keydown", "keypress", "keyup"]) panel.addEventListener(kind, keepToUs);
  // A question goes away with the button that answered it; the focus goes back to where it was before the question.
  let before;
  panel.addEventListener("focusin", ({ target }) => {
    if (!target.closest(".mciot-question")) before = target;
  });
  panel.addEventListener("click", ({ target }) => {
    if (target.closest(".mciot-question button")) before?.focus();
  });
}

function render({ model, el }) {
  el.style.display = "none";
  let frame;
  const findPanel = () => {
    const panel = el.closest(".mciot-form");
    if (panel) careForTheKeyboard(panel);
    else frame = requestAnimationFrame(findPanel); // not in its place yet
  };
  const here = () => model.send("here");
  findPanel();
  model.on("msg:custom", here);
  here();
  return () => {
    cancelAnimationFrame(frame);
    model.off("msg:custom", here);
    model.send("gone");
  };
}

export default { render };
