// The file's bytes go to the kernel as a message's buffer. They are never set on the model, because the Lab may write
// the model's state into the notebook file. What is wrong with a file the kernel says.
function make(tag, parent, properties = {}, attributes = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

function render({ model, el }) {
  el.classList.add("mciot-file");
  const id = `mciot-file-${Math.random().toString(36).slice(2)}`;
  make("label", el, { htmlFor: id, textContent: model.get("label") });
  const input = make("input", el, { id, type: "file" }, { "aria-describedby": `${id}-note` });
  make("span", el, { className: "mciot-drop", textContent: "or drop it here" });
  const note = make("div", el, { id: `${id}-note`, className: "mciot-note" }, { role: "status" });

  const hand = async (files, folder) => {
    note.textContent = "Handing over …"; // stays where no kernel answers
    note.classList.remove("mciot-problem");
    const [file] = files;
    if (files.length !== 1) return model.send({ problem: files.length ? "several" : "none" });
    const head = { name: file.name, size: file.size };
    if (folder) return model.send({ ...head, problem: "folder" });
    if (file.size > model.get("longest")) return model.send(head);
    try {
      model.send(head, undefined, [await file.arrayBuffer()]);
    } catch {
      model.send({ ...head, problem: "unreadable" });
    }
  };
  input.addEventListener("change", () => {
    if (input.files.length) hand([...input.files], false);
    input.value = ""; // so that the same file can be chosen again once it is mended
  });

  const over = (event, on) => {
    event.preventDefault(); // else the browser opens the file in place of the Lab
    event.stopPropagation();
    el.classList.toggle("mciot-over", on);
  };
  el.addEventListener("dragover", (event) => over(event, true));
  el.addEventListener("dragleave", (event) => over(event, el.contains(event.relatedTarget)));
  el.addEventListener("drop", (event) => {
    over(event, false);
    const { items, files } = event.dataTransfer;
    hand([...files], [...items].some((item) => item.webkitGetAsEntry?.()?.isDirectory));
  });
  // Else a key pressed here is a command of the Lab.
  const stop = (event) => event.ctrlKey || event.metaKey || event.stopPropagation(); // Ctrl+S saves the notebook
  for (const kind of ["keydown", "keypress", "keyup"]) el.addEventListener(kind, stop);

  const show = () => {
    note.textContent = model.get("status");
    note.classList.toggle("mciot-problem", note.textContent.startsWith("✗"));
  };
  model.on("change:status", show);
  show();
  return () => model.off("change:status", show);
}

export default { render };
