// The ledger's filter by verdict (book/evidence/claims). Without it all claims are shown.
addEventListener("DOMContentLoaded", () => {
  const claims = [...document.querySelectorAll(".claim")].filter(claim => claim.querySelector(".verdict"));
  if (!claims.length) return;
  const kind = claim => claim.querySelector(".verdict").classList[1];
  const filter = document.createElement("fieldset"), told = document.createElement("output");
  filter.className = "claims-filter";
  filter.innerHTML = "<legend>Show the claims whose verdict is</legend>";
  for (const name of ["any", ...new Set(claims.map(kind))]) {
    const n = claims.filter(claim => name == "any" || kind(claim) == name).length;
    const words = name.replace("-", " ").replace("depends", "depends on …");
    filter.insertAdjacentHTML("beforeend",
      `<label><input type="radio" name="verdict" value="${name}"${name == "any" ? " checked" : ""}> ${words} (${n})</label>`);
  }
  told.ariaLive = "polite";
  filter.append(told);
  const show = name => {
    for (const claim of claims) claim.hidden = name != "any" && kind(claim) != name;
    for (const section of new Set(claims.map(claim => claim.closest("section"))))
      section.hidden = !section.querySelector(".claim:not([hidden])");
    told.value = `${claims.filter(claim => !claim.hidden).length} of ${claims.length} claims are shown.`;
  };
  filter.onchange = event => show(event.target.value);
  claims[0].closest("section").before(filter);
  show("any");
});
