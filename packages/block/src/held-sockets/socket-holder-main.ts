/**
 * The socket holder: a process that keeps listening sockets while no agent does. It never accepts on
 * them; connections wait in their backlog until the next agent has the same socket. One message is
 * one request of the agent, by the key of a socket, and gets one answer:
 *
 *   hold KEY + descriptor -> ok, or full     take KEY -> ok + descriptor, or none     drop KEY -> ok
 *
 * It serves one agent, the newest that has come, whose connection says that it lives. It ends with
 * the last socket, when no agent has come for a while, and when its own socket is gone. It touches
 * no file but that one: one of two holders may be stale, and then does no harm.
 *
 *   node socket-holder-main.ts PATH-OF-ITS-OWN-SOCKET MILLISECONDS-WITHOUT-AN-AGENT
 */
import { closeSync, lstatSync, unlinkSync } from "node:fs";
import { flushCompileCache } from "node:module";
import {
  acceptFrom,
  listenOn,
  peerOf,
  poll,
  receiveMessage,
  sendMessage,
  type Message,
} from "./socket-calls.ts";

/** It was started for an agent that never came, and holds nothing. */
const UNUSED_MS_MAX = 30_000;
const LOOK_MS = 5000;
const HELD_MAX = 512;
/** Device and inode of a socket's file. */
const REQUEST = /^(hold|take|drop) (\d{1,20}:\d{1,20})$/;

const held = new Map<string, number>();

hold(process.argv[2]!, Number(process.argv[3]));

function hold(path: string, aloneMsMax: number): void {
  const control = listenOn(path, "messages");
  const own = lstatSync(path).ino;
  flushCompileCache();
  process.stdout.write("ready\n");
  let agent: number | null = null;
  let aloneSinceMs = performance.now();
  for (;;) {
    const patienceMs = held.size === 0 ? UNUSED_MS_MAX : aloneMsMax;
    const restMs = agent === null ? aloneSinceMs + patienceMs - performance.now() : Infinity;
    if (restMs <= 0) break;
    const sockets = agent === null ? [control] : [control, agent];
    const ready = poll(sockets, Math.min(restMs, LOOK_MS));
    const before = held.size;
    if (agent !== null && ready.includes(agent) && !serve(agent)) {
      closeSync(agent);
      agent = null;
      aloneSinceMs = performance.now();
    }
    if (held.size === 0 && before > 0) break;
    if (ready.includes(control)) {
      const next = admit(control);
      if (next !== null && agent !== null) closeSync(agent);
      agent = next ?? agent;
    }
    if (!isThere(path, own)) return;
  }
  // Before the end shows to an agent, which then may start another holder at the path.
  if (isThere(path, own)) unlinkSync(path);
}

function admit(control: number): number | null {
  let agent: number;
  try {
    agent = acceptFrom(control);
  } catch {
    return null; // It has left again.
  }
  if (peerOf(agent).uid === process.geteuid!()) return agent;
  closeSync(agent);
  return null;
}

/** False when the agent is gone, or breaks the rules. */
function serve(agent: number): boolean {
  try {
    const message = receiveMessage(agent);
    if (message === null) return false;
    const answer = answerTo(message);
    if (answer === null) return false;
    sendMessage(agent, answer);
    return true;
  } catch {
    return false;
  }
}

function answerTo({ text, descriptor }: Message): Message | null {
  const [, verb, key = ""] = REQUEST.exec(text) ?? [];
  const kept = held.get(key);
  const isFull = verb === "hold" && held.size >= HELD_MAX;
  if (descriptor !== null && (verb !== "hold" || isFull)) closeSync(descriptor);
  switch (verb) {
    case "hold":
      if (descriptor === null) return null;
      if (isFull) return { text: "full", descriptor: null };
      if (kept !== undefined) closeSync(kept);
      held.set(key, descriptor);
      return { text: "ok", descriptor: null };
    case "take":
      return { text: kept === undefined ? "none" : "ok", descriptor: kept ?? null };
    case "drop":
      if (kept !== undefined) closeSync(kept);
      held.delete(key);
      return { text: "ok", descriptor: null };
    default:
      return null;
  }
}

function isThere(path: string, inode: number): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.ino === inode;
}
