"use strict";
(() => {
  const STEP = 96;
  const $ = (id) => document.getElementById(id);
  const box = $("findings");
  for (const line of document.querySelectorAll(".copy")) {
    if (!navigator.clipboard) break;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.onclick = () => navigator.clipboard.writeText(line.querySelector("code").textContent)
      .then(() => { button.textContent = "Copied"; });
    line.append(button);
  }
  if (!box) return;
  const cards = [...box.children];
  const bar = document.querySelector(".bar-of-filters");
  const toggles = [...bar.querySelectorAll(".toggle")];
  const value = (id) => ($(id) ? $(id).value : "");
  let limit = STEP;

  const wanted = () => {
    const on = new Set(toggles.filter((t) => t.getAttribute("aria-pressed") === "true").map((t) => t.dataset.severity));
    const code = value("by-code"), name = value("by-class"), split = value("by-split");
    const text = value("by-text").trim().toLowerCase();
    return cards.filter(({ dataset: d, textContent }) => on.has(d.severity)
      && (!code || d.code === code) && (!name || d.name === name)
      && (!split || d.splits.split(" ").includes(split))
      && (!text || textContent.toLowerCase().includes(text)));
  };

  const show = (again) => {
    if (!again) limit = STEP;
    const key = value("sort"), found = wanted();
    if (key !== "order") {
      // what has no value comes last
      found.sort((a, b) => (!a.dataset[key] - !b.dataset[key])
        || a.dataset[key].localeCompare(b.dataset[key], undefined, { numeric: true })
        || a.dataset.order - b.dataset.order);
    } else {
      found.sort((a, b) => a.dataset.order - b.dataset.order);
    }
    for (const card of cards) card.hidden = true;
    for (const card of found.slice(0, limit)) {
      card.hidden = false;
      box.append(card);
    }
    $("more").hidden = found.length <= limit;
    $("how-many").textContent = `${Math.min(limit, found.length)} of ${found.length} shown`;
  };

  bar.hidden = false;
  for (const id of ["by-code", "by-class", "by-split", "sort"]) if ($(id)) $(id).onchange = () => show(false);
  $("by-text").oninput = () => show(false);
  $("more").onclick = () => { limit += STEP; show(true); };
  for (const toggle of toggles) {
    toggle.onclick = () => {
      toggle.setAttribute("aria-pressed", toggle.getAttribute("aria-pressed") !== "true");
      show(false);
    };
  }
  for (const row of document.querySelectorAll("table.groups tbody tr")) {
    row.onclick = () => {
      $("by-code").value = row.dataset.code;
      for (const t of toggles) t.setAttribute("aria-pressed", t.dataset.severity === row.dataset.severity);
      show(false);
      $("found").scrollIntoView({ behavior: "smooth" });
    };
  }
  const large = $("large");
  box.onclick = (event) => {
    const thumb = event.target.closest(".thumb");
    if (!thumb || !large.showModal) return;
    const card = thumb.closest(".finding");
    large.querySelector(".frame").replaceChildren(thumb.firstElementChild.cloneNode(true));
    large.querySelector(".message").textContent = card.querySelector(".message").textContent;
    large.querySelector(".place").textContent = card.dataset.place;
    large.querySelector(".hint").textContent = `${card.dataset.code} ${card.dataset.splits}`;
    large.showModal();
  };
  large.onclick = (event) => {
    if (event.target === large || event.target.closest(".close")) large.close();
  };
  show(false);
})();
