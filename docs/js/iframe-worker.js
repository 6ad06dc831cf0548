// The search of these pages when they are opened from files. Browsers start no worker from a file, so
// what the theme's search would run in one runs in a hidden frame, which answers as a worker does.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.title = "search";
      frame.hidden = true;
      const script = frame.ownerDocument.createElement("script");
      script.src = new URL(address, location.href).href;
      // Within the frame, "postMessage" is the worker's: it tells the page.
      frame.srcdoc =
        '<script>self.postMessage = (data) => parent.postMessage(data, "*");</' + "script>" +
        script.outerHTML;
      this.loaded = new Promise((resolve) => frame.addEventListener("load", () => resolve(frame)));
      window.addEventListener("message", (event) => {
        if (event.source === frame.contentWindow) {
          this.dispatchEvent(new MessageEvent("message", { data: event.data }));
        }
      });
      document.body.append(frame);
    }

    postMessage(data) {
      this.loaded.then((frame) => {
        frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
      });
    }
  };
}
