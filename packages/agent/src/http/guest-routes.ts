import {
  GuestDefinitionSchema,
  GuestListSchema,
  GuestObjectSchema,
  type GuestDefinition,
} from "@vmferry/protocol";
import { Type } from "typebox";
import type { GuestService } from "./guest-service.ts";
import type { HttpServer } from "./http-server.ts";
import { bodyProblems, json, located, problems } from "./described-responses.ts";

const params = Type.Object({ name: Type.String() });
const tags = ["guests"];

const listSchema = {
  tags,
  operationId: "listGuests",
  summary: "The guests of this host",
  response: { 200: json("All of them.", GuestListSchema), ...problems() },
};
const startSchema = {
  tags,
  operationId: "startGuest",
  summary: "Start a guest",
  description: "Its name makes this safe to repeat: a second one of the same name is refused.",
  body: GuestDefinitionSchema,
  response: {
    201: located(json("It runs.", GuestObjectSchema)),
    ...bodyProblems(
      "guest-exists",
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
  summary: "Power a guest off",
  params,
  response: {
    200: json("As it was last.", GuestObjectSchema),
    ...problems("guest-not-found", "guest-busy"),
  },
};

export function registerGuestRoutes(app: HttpServer, guests: GuestService): void {
  app.get("/v1/guests", { schema: listSchema }, () => ({ guests: guests.list() }));

  app.post<{ Body: GuestDefinition }>(
    "/v1/guests",
    { schema: startSchema },
    async (request, reply) => {
      const guest = await guests.start(request.body);
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
