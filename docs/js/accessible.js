// What the theme leaves out for readers who hear the page or use no pointer.
function complete() {
  for (const [selector, name] of [
    ["#__search", "Search"],
    ["#__drawer", "Navigation"],
    [".md-search[role=dialog]", "Search"],
  ]) {
    document.querySelectorAll(selector).forEach((one) => one.setAttribute("aria-label", name));
  }
  document.querySelectorAll(".md-code__nav").forEach((one, number) => {
    one.setAttribute("aria-label", `Example ${number + 1}`);
  });
  // Keys scroll only what can have the focus.
  for (const one of document.querySelectorAll("pre code, .md-typeset__scrollwrap")) {
    if (one.scrollWidth > one.clientWidth) one.tabIndex = 0;
  }
}
complete();
// The theme adds parts later.
new MutationObserver(complete).observe(document.body, { childList: true, subtree: true });
addEventListener("resize", complete);
