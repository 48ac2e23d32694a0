import {
  GuestDefinitionSchema,
  GuestListSchema,
  GuestObjectSchema,
  type GuestDefinition,
} from "@vmferry/protocol";
import { Type } from "typebox";
import type { GuestService } from "./guest-service.ts";
import type { HttpServer } from "./http-server.ts";

const params = Type.Object({ name: Type.String() });

export function registerGuestRoutes(app: HttpServer, guests: GuestService): void {
  app.get("/v1/guests", { schema: { response: { 200: GuestListSchema } } }, () => ({
    guests: guests.list(),
  }));

  app.post<{ Body: GuestDefinition }>(
    "/v1/guests",
    { schema: { body: GuestDefinitionSchema, response: { 201: GuestObjectSchema } } },
    async (request, reply) => {
      const guest = await guests.start(request.body);
      return reply.code(201).header("location", `/v1/guests/${guest.name}`).send(guest);
    },
  );

  app.get<{ Params: { name: string } }>(
    "/v1/guests/:name",
    { schema: { params, response: { 200: GuestObjectSchema } } },
    (request) => guests.get(request.params.name),
  );

  app.delete<{ Params: { name: string } }>(
    "/v1/guests/:name",
    { schema: { params, response: { 200: GuestObjectSchema } } },
    (request) => guests.powerOff(request.params.name),
  );
}
