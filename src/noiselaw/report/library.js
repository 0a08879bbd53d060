"use strict";
// Unpacks the drawing library, which would else be two thirds of the page. The policy lets it run because it knows its hash.

const libraryReady = (async () => {
  const packed = document.getElementById("library");
  if (!packed) return;
  const bytes = Uint8Array.from(atob(packed.textContent), (character) => character.charCodeAt(0));
  const script = document.createElement("script");
  script.textContent = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  document.head.append(script);
  packed.remove();
})();
