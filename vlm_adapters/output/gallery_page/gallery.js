"use strict";
const controls = document.getElementById("controls");
if (controls) {
  const list = document.getElementById("cases");
  const cases = [...list.children].map((article) => ({
    article,
    number: Number(article.dataset.number),
    iou: Number(article.dataset.iou),
    kinds: article.dataset.kinds.split(" "),
    tags: JSON.parse(article.dataset.tags),
    sample: article.dataset.sample,
    words: article.querySelector("bdi").textContent,
    text: (article.querySelector(".prompt").textContent + " " + article.dataset.sample).toLowerCase(),
  }));
  const orders = {
    drawn: (a, b) => a.number - b.number,
    up: (a, b) => a.iou - b.iou,
    down: (a, b) => b.iou - a.iou,
    words: (a, b) => a.words.localeCompare(b.words),
    sample: (a, b) => a.sample.localeCompare(b.sample, undefined, { numeric: true }),
  };
  const show = () => {
    const asked = Object.fromEntries(new FormData(controls));
    const words = asked.words.toLowerCase();
    const least = asked.least === "" ? 0 : Number(asked.least);
    const most = asked.most === "" ? 1 : Number(asked.most);
    let count = 0;
    for (const each of cases) {
      const fits =
        each.text.includes(words) &&
        (!asked.kind || each.kinds.includes(asked.kind)) &&
        (!asked.tag || each.tags.includes(asked.tag)) &&
        least <= each.iou &&
        each.iou <= most;
      each.article.hidden = !fits;
      count += fits;
    }
    list.append(...[...cases].sort(orders[asked.order]).map((each) => each.article));
    document.getElementById("count").textContent = `${count} of ${cases.length} shown`;
  };
  controls.addEventListener("input", show);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
  show();
}
