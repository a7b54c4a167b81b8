// Figures in their full size, on a click or by the keyboard; and a tab stop for what is moved sideways.
document.addEventListener("DOMContentLoaded", () => {
  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  dialog.addEventListener("click", () => dialog.close());
  document.body.append(dialog);

  for (const drawing of document.querySelectorAll("article figure svg.drawn")) {
    const button = document.createElement("button");
    button.className = "enlarge";
    button.title = button.ariaLabel = "Enlarge this figure";
    button.textContent = "⤢";
    const show = () => {
      const close = document.createElement("button");
      close.ariaLabel = close.title = "Close";
      close.textContent = "×";
      dialog.ariaLabel = drawing.getAttribute("aria-label");
      dialog.replaceChildren(drawing.cloneNode(true), close);
      dialog.showModal();
    };
    button.addEventListener("click", show);
    drawing.addEventListener("click", show);
    drawing.after(button);
  }

  const reach = () => {
    for (const box of document.querySelectorAll("article figure, article .pst-scrollable-table-container")) {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  addEventListener("resize", reach);
  (window.MathJax?.startup?.promise ?? Promise.resolve()).then(reach);
});
