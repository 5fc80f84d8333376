// The page's side of the playground. All text is set as text, never as HTML.
function make(tag, attributes, parent) {
  const made = Object.assign(document.createElement(tag), attributes);
  parent.append(made);
  return made;
}

function field(root, label, attributes) {
  const box = make("label", {}, root);
  make("span", { textContent: label }, box);
  return make("input", attributes, box);
}

function render({ model, el }) {
  const root = make("div", { className: "steerlab-playground" }, el);
  const form = make("form", {}, root);
  const expression = field(form, "vector", { value: model.get("expression"), spellcheck: false });
  const prompt = field(form, "prompt", { value: model.get("prompt") });
  const dose = field(form, "dose", { type: "range", min: -0.5, max: 0.5, step: 0.01 });
  const shown = make("output", {}, dose.parentElement);
  const button = make("button", { type: "submit" }, form);
  const about = make("small", {}, root);
  const error = make("p", { className: "error" }, root);
  error.setAttribute("role", "alert");
  const texts = make("div", { className: "texts" }, root);
  const columns = ["baseline", "steered"].map((name) => {
    const column = make("section", {}, texts);
    make("h5", { textContent: name }, column);
    return [name, make("p", { className: name }, column)];
  });

  // one message, since a change of the state may reach the kernel after it
  const run = () => model.send({ expression: expression.value, prompt: prompt.value, dose: Number(dose.value) });
  const show = () => {
    const [low, high] = [model.get("low"), model.get("high")];
    const at = Number(dose.value);
    const outside = low < high && (at < low - 1e-9 || at > high + 1e-9);
    shown.textContent = (at > 0 ? "+" : "") + at.toFixed(2) + (outside ? " outside the safe range" : "");
    shown.className = outside ? "outside" : "";
    button.textContent = model.get("running") ? "stop" : "generate";
    about.textContent = model.get("about");
    error.textContent = model.get("error");
    for (const [name, text] of columns) text.textContent = model.get(name) && model.get("prompt") + model.get(name);
  };

  dose.value = model.get("dose");
  dose.addEventListener("input", show);
  dose.addEventListener("change", run);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (model.get("running")) model.send("stop");
    else run();
  });
  for (const event of ["keydown", "keyup", "keypress"]) root.addEventListener(event, (e) => e.stopPropagation());
  model.on("change", show);
  show();
  return () => model.off("change", show);
}

export default { render };
