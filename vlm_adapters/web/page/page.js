// The page keeps what is chosen in `chosen`, what the server found in `result`, and draws both.

const $ = (id) => document.getElementById(id);
const chosen = { phrase: 0, all: false, masks: null, layer: null, head: null, point: null };
let model, image = null, result = null, asked = 0;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

async function read(response) {
  const type = response.headers.get("content-type") ?? "";
  const content = type.includes("json") ? await response.json() : {};
  if (!response.ok) throw new Error(content.error ?? `The server failed (${response.status}); its terminal says why.`);
  return content;
}

const failed = (error) => {
  $("error").textContent = error instanceof TypeError ? "The server does not answer. Is it still running?" : error.message;
};

// ---- the form ----

function show(blob) {
  image = blob;
  URL.revokeObjectURL($("preview").src);
  $("preview").src = URL.createObjectURL(blob);
  $("preview").hidden = false;
}

function setMode(mode) {
  const asks = mode === "question";
  for (const radio of document.getElementsByName("mode")) radio.checked = radio.value === mode;
  $("text-label").textContent = asks ? "Question" : "Sentence";
  $("phrases-of-sentence").hidden = asks;
  if (asks && !$("text").value.endsWith("?")) $("text").value = model.question;
}

async function chooseExample(index) {
  const { text, phrases } = model.examples[index];
  show(await (await fetch(`/examples/${index}.png`)).blob());
  setMode("sentence");
  $("file").value = "";
  $("text").value = text;
  $("phrases").value = phrases.join("\n");
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onerror = () => reject(new Error("The image cannot be read."));
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.readAsDataURL(blob);
  });
}

async function ground(event) {
  event.preventDefault();
  $("error").textContent = "";
  if (image === null) return failed(new Error("There is no image. Choose a file, or an example."));
  const most = model.max_file_bytes;  // a server that refuses does not read on, and a browser then says no more than that
  if (image.size > most) return failed(new Error(`The image file has more than the ${Math.floor(most / 2 ** 20)} MiB that are allowed. Shrink it.`));
  const asks = document.querySelector("[name=mode]:checked").value === "question";
  const phrases = asks ? [] : $("phrases").value.split("\n").map((line) => line.trim()).filter(Boolean);
  $("ground").disabled = true;
  $("status").textContent = asks ? "The model answers ..." : "Grounding ...";
  try {
    const body = JSON.stringify({ image: await base64(image), text: $("text").value, phrases, ask: asks });
    const headers = { "content-type": "application/json" };
    result = await read(await fetch("/results", { method: "POST", headers, body }));
    Object.assign(chosen, { phrase: 0, all: false, masks: result.masks.at(-1), layer: null, head: null, point: null });
    drawResult();
    const found = result.phrases.filter(({ state }) => state === "found").length;
    $("status").textContent = `${found} of ${result.phrases.length} phrases found.`;
  } catch (error) {
    $("status").textContent = "";
    failed(error);
  } finally {
    $("ground").disabled = false;
  }
}

// ---- the result ----

function phraseButton(phrase, index) {
  const button = element("button", { type: "button", className: "phrase" }, element("span", { className: "said" }, phrase.text));
  button.dataset.phrase = index;
  button.dataset.state = phrase.state;
  button.style.setProperty("--colour", phrase.colour);
  button.style.setProperty("--ink-on", phrase.ink);
  if (phrase.state !== "found") button.append(element("span", { className: "state" }, phrase.state === "absent" ? "absent" : "not located"));
  button.append(element("span", { className: "bar" }));
  button.onclick = () => choose({ phrase: index, all: false });
  return button;
}

function drawSentence() {
  const order = result.phrases.map((phrase, index) => ({ phrase, index })).sort((a, b) => a.phrase.span[0] - b.phrase.span[0]);
  const parts = [], others = [];
  let end = 0;
  for (const { phrase, index } of order) {
    const [start, stop] = phrase.span;
    if (start < end) { others.push(phraseButton(phrase, index), " "); continue; }
    parts.push(result.text.slice(end, start), phraseButton(phrase, index));
    end = stop;
  }
  $("sentence").replaceChildren(...parts, result.text.slice(end));
  $("elsewhere").replaceChildren("Within these: ", ...others);
  $("elsewhere").hidden = others.length === 0;
}

const options = (first, name, values) => [element("option", { value: "" }, first), ...values.map((value) => element("option", { value }, `${name} ${value}`))];

function drawResult() {
  $("result").hidden = false;
  $("warnings").replaceChildren(...result.warnings.map((warning) => element("p", {}, warning)));
  drawSentence();
  $("layer").replaceChildren(...options("the best heads, together", "layer", result.layers));
  $("head").replaceChildren(...options("mean of all heads", "head", result.heads));
  const names = result.masks.length > 1 ? result.masks : [];
  $("refiner").replaceChildren(...names.map((name) => {
    const button = element("button", { type: "button" }, name);
    button.dataset.masks = name;
    button.onclick = () => choose({ masks: name, all: chosen.all });
    return button;
  }), ...(names.length ? [] : [element("span", { className: "faint" }, "No refiner is loaded, so there is one mask of each phrase.")]));
  for (const [id, file] of [["png", "overlay.png"], ["json", "grounding.json"], ["rle", "coco.json"]]) $(id).href = `/results/${result.id}/${file}`;
  $("words").replaceChildren();
  choose({});
  $("result").scrollIntoView({ block: "start" });
}

function choose(changes) {
  Object.assign(chosen, changes);
  const phrase = result.phrases[chosen.phrase];
  for (const button of document.querySelectorAll("[data-phrase]")) button.ariaPressed = String(!chosen.all && Number(button.dataset.phrase) === chosen.phrase);
  for (const button of document.querySelectorAll("[data-masks]")) button.ariaPressed = String(button.dataset.masks === chosen.masks);
  $("all").ariaPressed = String(chosen.all);
  $("layer").value = chosen.layer ?? "";
  $("head").value = chosen.head ?? "";
  $("head").disabled = chosen.layer === null;

  const found = { found: `found, score ${phrase.score.toFixed(2)}`, absent: "absent from the image", unlocated: "not located: no pixel is sure enough" };
  const presence = phrase.presence === null ? "" : `, presence ${phrase.presence.toFixed(2)}`;
  $("about").textContent = `${phrase.text}: ${found[phrase.state]}${presence}. Reliability of its map: ${phrase.reliability}.`;

  const address = `/results/${result.id}`;
  const masks = new URLSearchParams({ masks: chosen.masks, ...(chosen.all ? {} : { phrase: chosen.phrase }) });
  $("mask").src = `${address}/mask.png?${masks}`;
  $("mask").alt = chosen.all ? "The masks of all phrases" : `The mask of ${phrase.text}`;
  const map = new URLSearchParams({ phrase: chosen.phrase });
  if (chosen.layer !== null) map.set("layer", chosen.layer);
  if (chosen.layer !== null && chosen.head !== null) map.set("head", chosen.head);
  $("map").src = `${address}/map.png?${map}`;
  $("map").alt = `Where ${phrase.text} looks`;

  $("best").replaceChildren("Heads that follow it best:", ...phrase.best.map(({ layer, head, following }) => {
    const button = element("button", { type: "button", title: `follows the phrase by ${following.toFixed(2)}` }, `${layer}.${head}`);
    button.ariaLabel = `layer ${layer} head ${head}`;
    button.ariaPressed = String(chosen.layer === layer && chosen.head === head);
    button.onclick = () => { choose({ layer, head }); $("best").querySelector("[aria-pressed=true]")?.focus(); };
    return button;
  }));
  drawPoint();
}

// ---- the words at a pixel ----

function drawPoint() {
  const [height, width] = result.size;
  for (const mark of document.querySelectorAll(".point")) {
    mark.hidden = chosen.point === null;
    if (chosen.point === null) continue;
    mark.style.left = `${(chosen.point.x + 0.5) / width * 100}%`;
    mark.style.top = `${(chosen.point.y + 0.5) / height * 100}%`;
  }
  $("here-none").hidden = chosen.point !== null;
  $("here-title").textContent = chosen.point === null ? "Which words look at a pixel?" : `Which words look at pixel ${chosen.point.x}, ${chosen.point.y}?`;
  if (chosen.point === null) for (const button of document.querySelectorAll("[data-phrase]")) button.style.removeProperty("--height");
}

async function look(x, y) {
  const [height, width] = result.size;
  chosen.point = { x: Math.min(Math.max(Math.floor(x), 0), width - 1), y: Math.min(Math.max(Math.floor(y), 0), height - 1) };
  drawPoint();
  const mine = ++asked;
  try {
    const words = await read(await fetch(`/results/${result.id}/words?${new URLSearchParams(chosen.point)}`));
    if (mine === asked) drawWords(words);
  } catch (error) {
    failed(error);
  }
}

function drawWords(words) {
  $("words").replaceChildren(...words.map(({ phrase, height, inside }) => {
    const { text, colour, level, state } = result.phrases[phrase];
    const notes = [height.toFixed(2), ...(inside ? ["in its mask"] : []), ...(state === "absent" ? ["absent"] : []), ...(level === "low" ? ["a map of low reliability"] : [])];
    const track = element("span", { className: "track" }, element("span"));
    const item = element("li", {}, element("span", {}, text), track, element("span", { className: "number" }, notes.join(", ")));
    item.style.setProperty("--colour", colour);
    item.style.setProperty("--height", `${height * 100}%`);
    document.querySelector(`[data-phrase="${phrase}"]`).style.setProperty("--height", `${height * 100}%`);
    return item;
  }));
}

function stage(id) {
  $(id).onclick = (event) => {
    const box = $(id).getBoundingClientRect();
    look((event.clientX - box.left) / box.width * result.size[1], (event.clientY - box.top) / box.height * result.size[0]);
  };
  $(id).onkeydown = (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Escape") { chosen.point = null; $("words").replaceChildren(); drawPoint(); }
    if (!step) return;
    event.preventDefault();
    const { x, y } = chosen.point ?? { x: result.size[1] / 2, y: result.size[0] / 2 };
    look(x + step[0] * result.cell[1], y + step[1] * result.cell[0]);
  };
}

// ---- start ----

const number = (select) => select.value === "" ? null : Number(select.value);
$("layer").onchange = () => choose({ layer: number($("layer")), head: number($("layer")) === null ? null : chosen.head });
$("head").onchange = () => choose({ head: number($("head")) });
$("all").onclick = () => choose({ all: !chosen.all });
$("form").onsubmit = ground;
$("file").onchange = () => { if ($("file").files.length) show($("file").files[0]); };
$("mode").onchange = (event) => setMode(event.target.value);
$("form").ondragover = (event) => { event.preventDefault(); $("form").classList.add("dropping"); };
$("form").ondragleave = () => $("form").classList.remove("dropping");
$("form").ondrop = (event) => {
  event.preventDefault();
  $("form").classList.remove("dropping");
  if (event.dataTransfer.files.length) show(event.dataTransfer.files[0]);
};
stage("mask-stage");
stage("map-stage");

try {
  model = await read(await fetch("/model"));
  $("model").textContent = `${model.name}: ${model.method}`;
  document.querySelector("[value=question]").disabled = !model.answers;
  $("examples").replaceChildren(...model.examples.map(({ text }, index) => {
    const button = element("button", { type: "button", title: text }, element("img", { src: `/examples/${index}.png`, alt: `Example ${index + 1}: ${text}` }));
    button.onclick = () => chooseExample(index).catch(failed);
    return button;
  }));
} catch (error) {
  failed(error);
}
