"use strict";
(() => {
  const SHOWN = 100;
  const { t, thresholds, further, rows } = JSON.parse(document.getElementById("entries-data").textContent);
  const query = document.getElementById("entry-query");
  const order = document.getElementById("entry-order");
  const body = document.getElementById("entry-rows");
  const status = document.getElementById("entry-status");
  const number = new Intl.NumberFormat("en-US");
  // With several languages a row's language follows its counts.
  const threshold = (row) => (thresholds ? thresholds[row[3]] : t);
  const keep = (row) => Math.min(1, threshold(row) / row[1]);
  const orders = {
    count: (a, b) => b[1] - a[1],
    rare: (a, b) => a[1] - b[1],
    kept: (a, b) => b[2] - a[2],
    name: (a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0),
  };
  // Text only, never markup: entries come from anywhere.
  const cell = (line, text, kind) => {
    const outer = document.createElement("td");
    const inner = document.createElement("bdi");
    inner.textContent = text;
    outer.className = kind;
    outer.append(inner);
    line.append(outer);
  };
  const render = () => {
    const wanted = query.value.toLowerCase();
    const found = rows.filter((row) => row[0].toLowerCase().includes(wanted));
    found.sort(orders[order.value]);
    body.replaceChildren(...found.slice(0, SHOWN).map((row) => {
      const line = document.createElement("tr");
      cell(line, row[0], "e");
      cell(line, number.format(row[1]), "n");
      cell(line, number.format(row[2]), "n");
      cell(line, row[1] ? keep(row).toPrecision(3) : "\u2013", "n wide");
      cell(line, !row[1] ? "unmatched" : row[1] >= threshold(row) ? "head" : "tail", "");
      for (let i = 0; i < further; i++) cell(line, row[3 + i], "wide");
      return line;
    }));
    const more = found.length > SHOWN ? `, the first ${SHOWN} shown` : "";
    status.textContent = `${number.format(found.length)} of ${number.format(rows.length)}${more}`;
  };
  query.addEventListener("input", render);
  order.addEventListener("change", render);
  render();
})();
