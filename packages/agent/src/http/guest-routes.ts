import {
  GuestAttachSchema,
  GuestDefinitionSchema,
  GuestListSchema,
  GuestObjectSchema,
  type GuestAttach,
  type GuestDefinition,
} from "@vmferry/protocol";
import { Type } from "typebox";
import type { GuestService } from "./guest-service.ts";
import type { HttpServer } from "./http-server.ts";
import { refuseInvalidBody } from "./body-check.ts";
import { bodyProblems, json, located, problems } from "./described-responses.ts";

const params = Type.Object({ name: Type.String() });
const tags = ["guests"];

const listSchema = {
  tags,
  operationId: "listGuests",
  summary: "The guests of this host",
  description:
    "Of guests whose QEMU is gone it has the last 100 that were handed off and the last 100 that " +
    "stopped, until the agent is restarted.",
  response: { 200: json("All of them.", GuestListSchema), ...problems() },
};
const startSchema = {
  tags,
  operationId: "startGuest",
  summary: "Start a guest, or attach to one",
  description:
    "With a definition the agent starts the guest. With `attach` it takes up a QEMU that somebody " +
    "else started: a source agent one whose guest has run, a dest agent one that waits for a " +
    "migration. Its name makes this safe to repeat: a second one of the same name is refused.",
  response: {
    201: located(json("It runs, or is attached to.", GuestObjectSchema)),
    ...bodyProblems(
      "guest-exists",
      "guest-attached",
      "guest-in-doubt",
      "monitor-not-usable",
      "guest-not-attachable",
      "image-incomplete",
      "image-handed-off",
      "host-memory-insufficient",
      "image-not-usable",
      "guest-start-failed",
    ),
  },
};
const getSchema = {
  tags,
  operationId: "getGuest",
  summary: "One guest",
  params,
  response: { 200: json("As it is now.", GuestObjectSchema), ...problems("guest-not-found") },
};
const powerOffSchema = {
  tags,
  operationId: "powerOffGuest",
  summary: "Power a guest off, or let go of one that was attached",
  description: "A QEMU that the agent did not start goes on as it is.",
  params,
  response: {
    200: json("As it was last.", GuestObjectSchema),
    ...problems("guest-not-found", "guest-busy"),
  },
};

export function registerGuestRoutes(app: HttpServer, guests: GuestService): void {
  app.get("/v1/guests", { schema: listSchema }, () => ({ guests: guests.list() }));

  app.post<{ Body: GuestDefinition | GuestAttach }>(
    "/v1/guests",
    { schema: startSchema, config: { swaggerTransform: withEitherBody } },
    async (request, reply) => {
      const { body } = request;
      refuseInvalidBody(request, isAttach(body) ? GuestAttachSchema : GuestDefinitionSchema);
      const guest = isAttach(body) ? await guests.attach(body) : await guests.start(body);
      return reply.code(201).header("location", `/v1/guests/${guest.name}`).send(guest);
    },
  );

  app.get<{ Params: { name: string } }>("/v1/guests/:name", { schema: getSchema }, (request) =>
    guests.get(request.params.name),
  );

  app.delete<{ Params: { name: string } }>(
    "/v1/guests/:name",
    { schema: powerOffSchema },
    (request) => guests.powerOff(request.params.name),
  );
}

/** Each is checked by itself, so that errors are about what was meant; the document has both. */
function withEitherBody<S extends { schema: object; url: string }>({ schema, url }: S): S {
  const body = Type.Union([GuestDefinitionSchema, GuestAttachSchema]);
  return { schema: { ...schema, body }, url } as S;
}

function isAttach(body: GuestDefinition | GuestAttach | null): body is GuestAttach {
  return typeof body === "object" && body !== null && Object.hasOwn(body, "attach");
}
