// What is shown stays true: asked for again every few seconds, while someone looks.

import { Unreachable, pause } from "/assets/api.js";

const OFTEN = 3000;

/** Refresh every few seconds while the page is seen, and say where the server does not answer. */
export async function keepFresh(refresh, connectionState, signal, every = OFTEN) {
  for (;;) {
    try {
      await pause(every, signal);
      if (document.hidden) continue;
      await refresh();
      connectionState("");
    } catch (error) {
      if (signal.aborted || !(error instanceof Unreachable || error.status >= 500)) return;
      connectionState("lost");
    }
  }
}
