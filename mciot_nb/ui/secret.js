// The text lives in the <input> alone until it goes to the kernel as a message. It is never set on the model,
// because the Lab may write the model's state into the notebook file.
function make(tag, parent, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  parent.append(element);
  return element;
}

function render({ model, el }) {
  el.classList.add("mciot-secret");
  el.setAttribute("data-lm-suppress-shortcuts", "true"); // else a letter typed here is a command of the Lab
  let parent = el;
  if (model.get("folded")) {
    parent = make("details", el);
    make("summary", parent, { textContent: model.get("folded") });
  }
  const row = make("div", parent, { className: "mciot-secret-row" });
  const id = `mciot-secret-${Math.random().toString(36).slice(2)}`;
  make("label", row, { htmlFor: id, textContent: model.get("label") });
  const input = make("input", row, { id, type: "password", autocomplete: "new-password", spellcheck: false });
  input.setAttribute("autocapitalize", "off");
  input.setAttribute("aria-describedby", `${id}-note`);
  const button = make("button", row, { type: "button", className: "jupyter-button", textContent: "Use" });
  button.setAttribute("aria-label", `Use this: ${model.get("label")}`);
  const note = make("span", row, { id: `${id}-note`, className: "mciot-note" });
  note.setAttribute("role", "status");

  const show = () => {
    note.textContent = input.value ? "Typed, not handed over yet: press Enter." : model.get("status");
  };
  const send = () => {
    if (!input.value) return;
    model.send({ secret: input.value });
    input.value = "";
    note.textContent = "Handing over …"; // stays where no kernel answers
  };
  input.addEventListener("input", show);
  input.addEventListener("blur", () => model.get("when_left") && send());
  button.addEventListener("click", send);
  for (const kind of ["keydown", "keypress", "keyup"]) {
    el.addEventListener(kind, (event) => {
      event.stopPropagation();
      if (kind === "keydown" && event.key === "Enter" && !event.isComposing && event.target === input) {
        event.preventDefault(); // Shift+Enter too: it would run the cell
        send();
      }
    });
  }
  model.on("change:status", show);
  show();
  return () => model.off("change:status", show);
}

export default { render };
