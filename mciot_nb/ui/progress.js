// The kernel is busy while this is shown, so Cancel asks the server to interrupt it, as the Lab's Stop button does.
const QUICK = 500; // milliseconds: what takes no longer needs no bar

function make(tag, parent, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  parent.append(element);
  return element;
}

function server() {
  const page = document.getElementById("jupyter-config-data");
  const { baseUrl, token } = page ? JSON.parse(page.textContent) : {};
  return baseUrl && { baseUrl, token };
}

function interrupt(kernel) {
  const { baseUrl, token } = server();
  const xsrf = document.cookie.match(/(?:^|; )_xsrf=([^;]*)/)?.[1];
  const headers = { ...(xsrf && { "X-XSRFToken": xsrf }), ...(token && { Authorization: `token ${token}` }) };
  return fetch(`${baseUrl}api/kernels/${kernel}/interrupt`, { method: "POST", headers });
}

function render({ model, el }) {
  el.classList.add("mciot-progress");
  el.hidden = true;
  const name = make("span", el, { textContent: model.get("what") });
  const bar = make("progress", el);
  bar.setAttribute("aria-label", model.get("what"));
  const seconds = make("span", el);
  const begin = Date.now();
  const cancel = make("button", el, { type: "button", className: "jupyter-button", textContent: "Cancel" });
  cancel.hidden = !(model.get("kernel") && server());
  cancel.addEventListener("click", async () => {
    cancel.disabled = true;
    name.textContent = `${model.get("what")}: cancelling …`;
    const answer = await interrupt(model.get("kernel")).catch(() => ({ ok: false }));
    if (!answer.ok) name.textContent = `${model.get("what")}: not cancelled, press the Lab's Stop button`;
  });

  const show = () => {
    const running = model.get("state") === "running";
    const [done, of] = [model.get("done"), model.get("of")];
    if (of) Object.assign(bar, { max: of, value: done });
    seconds.textContent = `${of ? `${done} of ${of}, ` : ""}${Math.round((Date.now() - begin) / 1000)} s`;
    if (running) return void (el.hidden = Date.now() - begin < QUICK);
    clearInterval(clock); // a bar that ran full stays as a trace of what was slow; a quick one was never shown
    bar.hidden = cancel.hidden = true;
    const words = { done: "✓", cancelled: "✗ cancelled:", failed: "✗ failed:" }[model.get("state")];
    name.textContent = `${words} ${model.get("what")}`;
  };
  const clock = setInterval(show, 250);
  model.on("change:state change:done", show);
  show();
  return () => {
    clearInterval(clock);
    model.off("change:state change:done", show);
  };
}

export default { render };
