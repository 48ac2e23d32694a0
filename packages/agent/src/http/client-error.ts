import { STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import { makeProblem, PROBLEM_CONTENT_TYPE, type Problem } from "@vmferry/protocol";
import { problemHeaders } from "./problem-reply.ts";

/** Answers a connection on which no request came about: Node found no HTTP, or not in time. */
export function answerClientError(error: NodeJS.ErrnoException, socket: Duplex): void {
  const { bytesWritten } = socket as Duplex & { bytesWritten?: number };
  // In the middle of an answer, another one would be read as a part of it.
  if (error.code === "ECONNRESET" || !socket.writable || (bytesWritten ?? 0) > 0) socket.destroy();
  else endWithProblem(socket, clientProblem(error.code));
}

/** Writes a problem where there is no reply to write it with, and closes the connection. */
export function endWithProblem(socket: Duplex, problem: Problem): void {
  const body = JSON.stringify(problem);
  const headers = {
    ...problemHeaders(problem),
    "content-type": PROBLEM_CONTENT_TYPE,
    "content-length": Buffer.byteLength(body),
    connection: "close",
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const { status } = problem;
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}\r\n${lines.join("")}\r\n${body}`);
}

function clientProblem(code: string | undefined): Problem {
  switch (code) {
    case "HPE_HEADER_OVERFLOW":
      return makeProblem("headers-too-large", "They may have 16 KiB in all.");
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return makeProblem("request-timeout", "Send the whole request without pausing.");
    default:
      return makeProblem("invalid-request", "This is not HTTP/1.1.");
  }
}
