// A job's events over the WebSocket, each exactly once: a lost connection is taken up again behind the last event.

import { Problem, pause, post } from "/assets/api.js";

const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 5000;
const END_OF_LOG = 1000;

/**
 * Follow a job from behind the event `after`, until its log ends or `signal` says that nobody looks any more.
 *
 * `onEvents` gets the events, oldest first; `onState` hears "live", "lost" and "ended". Returns the id of the last
 * event. Throws Problem where the server turns the watcher away.
 */
export async function follow(jobId, after, { onEvents, onState, signal }) {
  let cursor = after;
  let wait = FIRST_PAUSE;
  for (;;) {
    try {
      const { ticket } = await post(`/jobs/${jobId}/stream-ticket`, { signal });
      const code = await connection(address(jobId, cursor, ticket), signal, {
        open: () => onState("live"),
        message: (events) => {
          cursor = events[events.length - 1].id;
          wait = FIRST_PAUSE;
          onEvents(events);
        },
      });
      if (code === END_OF_LOG) {
        onState("ended");
        return cursor;
      }
    } catch (error) {
      if (error.name === "AbortError" || (error instanceof Problem && error.status < 500)) throw error;
    }
    onState("lost");
    // Not all pages of a restarted server at the same moment.
    await pause(wait * (0.75 + Math.random() / 2), signal);
    wait = Math.min(2 * wait, LONGEST_PAUSE);
  }
}

function address(jobId, cursor, ticket) {
  const query = new URLSearchParams({ after: cursor, ticket });
  return `${location.origin.replace("http", "ws")}/jobs/${jobId}/stream?${query}`;
}

/** Return the code that a connection was closed with. */
function connection(url, signal, { open, message }) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(new DOMException("No longer wanted.", "AbortError"));
    const socket = new WebSocket(url);
    const leave = () => {
      // Browsers complain of a connection that is closed before it stands.
      if (socket.readyState === WebSocket.CONNECTING) socket.addEventListener("open", () => socket.close());
      else socket.close();
      reject(new DOMException("No longer wanted.", "AbortError"));
    };
    signal.addEventListener("abort", leave, { once: true });
    socket.addEventListener("open", () => signal.aborted || open());
    socket.addEventListener("message", ({ data }) => {
      if (!signal.aborted) message(data.split("\n").map((line) => JSON.parse(line)));
    });
    socket.addEventListener("close", ({ code }) => {
      signal.removeEventListener("abort", leave);
      resolve(code);
    });
  });
}
