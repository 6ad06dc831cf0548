"use strict";
(() => {
  // A link to something within a closed <details> opens it.
  const reveal = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (!(target instanceof HTMLDetailsElement)) return;
    target.open = true;
    target.scrollIntoView();
  };
  window.addEventListener("hashchange", reveal);
  reveal();
})();
(() => {
  // What scrolls can be reached with the keyboard.
  const watch = new ResizeObserver((seen) => {
    for (const { target } of seen) {
      const over = target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight;
      if (over) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  });
  document.querySelectorAll(".scroll").forEach((box) => watch.observe(box));
})();
(() => {
  // Values under the pointer: those of the nearest row of the chart's table.
  const SVG = "http://www.w3.org/2000/svg";
  for (const figure of document.querySelectorAll("figure")) {
    const chart = figure.querySelector(".chart");
    const svg = chart.querySelector("svg");
    const rows = [...figure.querySelectorAll("tr[data-x]")];
    if (!rows.length) continue;
    const heads = [...figure.querySelectorAll("th")].map((head) => head.textContent);
    const { width, height } = svg.viewBox.baseVal;
    const line = document.createElementNS(SVG, "line");
    for (const [name, value] of [["class", "at"], ["y1", 0], ["y2", height * 0.86]]) {
      line.setAttribute(name, value);
    }
    const box = document.createElement("div");
    box.className = "tip";
    box.hidden = true;
    chart.append(box);
    const leave = () => {
      box.hidden = true;
      line.remove();
    };
    const show = (event) => {
      const place = svg.getBoundingClientRect();
      const x = ((event.clientX - place.left) / place.width) * width;
      const away = (row) => Math.abs(row.dataset.x - x);
      const row = rows.reduce((best, other) => (away(other) < away(best) ? other : best));
      line.setAttribute("x1", row.dataset.x);
      line.setAttribute("x2", row.dataset.x);
      svg.append(line);
      box.replaceChildren(...[...row.cells].map((cell, i) => {
        const value = document.createElement("div");
        value.textContent = `${heads[i]}: ${cell.textContent}`;
        return value;
      }));
      box.hidden = false;
      // On the side of the line that has more room.
      box.classList.toggle("left", row.dataset.x > width / 2);
    };
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", leave);
  }
})();
(() => {
  // Search: all entries lie compressed in the page and are unpacked at first use.
  const data = document.getElementById("entries-data");
  if (!data) return;
  const SHOWN = 100;
  const query = document.getElementById("entry-query");
  const order = document.getElementById("entry-order");
  const table = document.getElementById("entry-table");
  const body = document.getElementById("entry-rows");
  const status = document.getElementById("entry-status");
  const number = new Intl.NumberFormat("en-US");

  const unpack = async () => {
    const bytes = Uint8Array.from(atob(data.textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    const found = JSON.parse(await new Response(stream).text());
    found.names = found.names.split("\n");
    found.lowered = found.names.map((name) => name.toLowerCase());
    found.sampled = new Map(found.sampled);
    found.orders = {};
    return found;
  };
  let unpacked;
  const load = () => (unpacked ??= unpack());

  const by = {
    count: (e) => (a, b) => e.counts[b] - e.counts[a] || a - b,
    rare: (e) => (a, b) => e.counts[a] - e.counts[b] || a - b,
    kept: (e) => (a, b) => e.kept[b] - e.kept[a] || a - b,
    lost: (e) => (a, b) => e.counts[b] - e.kept[b] - e.counts[a] + e.kept[a] || a - b,
    name: () => (a, b) => a - b, // they are packed in this order
  };
  const ordered = (e, name) =>
    (e.orders[name] ??= Uint32Array.from(e.names, (_, i) => i).sort(by[name](e)));

  // Text only, never markup: entries come from anywhere.
  const cell = (line, text, kind, link) => {
    const outer = document.createElement("td");
    const inner = document.createElement("bdi");
    inner.textContent = text;
    outer.className = kind;
    if (link === undefined) {
      outer.append(inner);
    } else {
      const anchor = document.createElement("a");
      anchor.href = `#entry-${link}`;
      anchor.append(inner);
      outer.append(anchor);
    }
    line.append(outer);
  };
  const row = (e, i) => {
    const [count, kept] = [e.counts[i], e.kept[i]];
    const t = e.thresholds[e.threshold.length ? e.threshold[i] : 0];
    const line = document.createElement("tr");
    cell(line, e.names[i], "e");
    cell(line, number.format(count), "n");
    cell(line, number.format(kept), "n");
    cell(line, count ? Math.min(1, t / count).toPrecision(3) : "\u2013", "n wide");
    cell(line, !count ? "unmatched" : count >= t ? "head" : "tail", "");
    const sampled = e.sampled.get(i);
    const unsampled = kept ? "not in this sample" : "\u2013";
    cell(line, sampled === undefined ? unsampled : "shown", "wide", sampled);
    for (const column of e.further) cell(line, column.values[column.of[i]], "wide");
    return line;
  };
  const render = (e) => {
    const wanted = query.value.toLowerCase();
    const exact = [];
    const others = [];
    let found = 0;
    for (const i of ordered(e, order.value)) {
      if (wanted && !e.lowered[i].includes(wanted)) continue;
      found++;
      if (e.lowered[i] === wanted) exact.push(i);
      else if (others.length < SHOWN) others.push(i);
    }
    const first = [...exact, ...others].slice(0, SHOWN);
    const all = Number(data.dataset.all);
    body.replaceChildren(...first.map((i) => row(e, i)));
    table.hidden = !found;
    const more = found > SHOWN ? `, the first ${SHOWN} shown` : "";
    const sample = e.names.length < all ? ` in this sample of ${number.format(all)}` : "";
    status.textContent = found
      ? `${number.format(found)} of ${number.format(e.names.length)} entries${sample}${more}`
      : sample ? `not${sample} entries` : `none of ${number.format(all)} entries`;
  };
  const show = () => load().then(render, () => {
    status.textContent = "This browser cannot unpack the entries; use metacurate inspect entry.";
  });
  const section = document.getElementById("search");
  query.addEventListener("focus", load);
  query.addEventListener("input", () => {
    // The results start below the bar, wherever one was reading.
    if (query.value) section.scrollIntoView({ block: "start", behavior: "instant" });
    show();
  });
  order.addEventListener("change", show);
  order.addEventListener("focus", load);
})();
