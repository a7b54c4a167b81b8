/* What all previews have in common, said to tippy before sphinx-tippy makes one of each link. */
(() => {
  let tapped;  // the link whose preview a finger has opened

  tippy.setDefaultProps({
    appendTo: () => document.querySelector("article.bd-article"),  // so that it looks as it does on its page
    aria: { content: "describedby", expanded: false },  // it is read out with the link, and no menu
    onCreate(preview) {
      preview.reference.removeAttribute("title");  // the browser would show it above the preview
      // No id twice on a page, and the way to a heading's own link is not part of what it says.
      preview.popper.querySelectorAll(".headerlink").forEach((link) => link.remove());
      const shown = preview.popper.querySelector(".tippy-content");
      if (shown.querySelector(":scope > dt")) {  // a term and what it means stand in a list of such
        const list = document.createElement("dl");
        list.append(...shown.childNodes);
        shown.append(list);
      }
      preview.popper.querySelectorAll("[id]").forEach((copy) => copy.removeAttribute("id"));
    },
    onHidden(preview) { if (tapped === preview.reference) tapped = undefined; },
  });

  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tippy.hideAll(); });

  // A finger can't hover: its first tap opens the preview, and the second follows the link.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!tippy.currentInput.isTouch || !link?._tippy || link === tapped) return;
    event.preventDefault();
    tapped = link;
    link._tippy.show();
  }, true);
})();
