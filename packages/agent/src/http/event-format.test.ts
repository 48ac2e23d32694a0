import { expect, test } from "vitest";
import { acceptedEventFormat } from "./event-format.ts";

test.each([
  [undefined, "text/event-stream"],
  ["*/*", "text/event-stream"],
  ["text/event-stream", "text/event-stream"],
  ["text/*", "text/event-stream"],
  ["TEXT/EVENT-STREAM; q=0.1", "text/event-stream"],
  ["application/x-ndjson", "application/x-ndjson"],
  ["application/*", "application/x-ndjson"],
  ["text/event-stream;q=0.5, application/x-ndjson", "application/x-ndjson"],
  ["text/event-stream, application/x-ndjson", "text/event-stream"],
  ["text/event-stream;q=0, */*", "application/x-ndjson"],
  ["application/json, */*;q=0.1", "text/event-stream"],
  ["application/x-ndjson;q=nonsense, text/event-stream;q=0.1", "text/event-stream"],
])("Accept: %s gets %s", (accept, contentType) => {
  expect(acceptedEventFormat(accept).contentType).toBe(contentType);
});

test.each(["application/json", "text/html", "*/*;q=0", "application/x-ndjson;q=0", "", "nonsense"])(
  "Accept: %j gets what is offered instead",
  (accept) => {
    expect(() => acceptedEventFormat(accept)).toThrow(
      expect.objectContaining({
        code: "not-acceptable",
        message: expect.stringMatching(/text\/event-stream and application\/x-ndjson/) as string,
      }),
    );
  },
);
