// The site's search runs in a worker, and browsers start none from a file. Where the site was opened as files, this one runs
// the worker's script in a hidden frame instead: messages go to the frame's window and come back to the page's.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.appendChild(this.frame)
      const page = this.frame.contentDocument
      page.open()
      page.write(`<!doctype html><script>
        postMessage = parent.postMessage.bind(parent)
        importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((done, failed) => {
          const script = document.createElement("script")
          Object.assign(script, {src: url, onload: done, onerror: failed})
          document.body.appendChild(script)
        })), Promise.resolve())
      <\/script><body><script src="${url}"><\/script></body>`)
      page.close()
      window.addEventListener("message", (event) => {
        if (event.source === window || event.source === this.frame.contentWindow) {
          this.dispatchEvent(new MessageEvent("message", {data: event.data}))
        }
      })
    }
    postMessage(data) {
      const send = () => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", {data}))
      if (this.frame.contentDocument.readyState === "complete") send()
      else this.frame.contentWindow.addEventListener("load", send, {once: true})
    }
    terminate() {
      this.frame.remove()
    }
  }
}
