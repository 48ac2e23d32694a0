import { MAP_CELLS_MAX, MigrationMapSchema, UNKNOWN_MAP } from "@vmferry/protocol";
import { Type } from "typebox";
import type { MigrationService } from "./migration-service.ts";
import type { HttpServer } from "./http-server.ts";

const params = Type.Object({ id: Type.String() });
const querystring = Type.Object(
  { cells: Type.Optional(Type.Integer({ minimum: 1, maximum: MAP_CELLS_MAX, default: 1024 })) },
  { additionalProperties: false },
);

/** A picture of what has been sent, drawn for whoever asks. */
export function registerMapRoute(app: HttpServer, migrations: MigrationService): void {
  app.get<{ Params: { id: string }; Querystring: { cells: number } }>(
    "/v1/migrations/:id/map",
    { schema: { params, querystring, response: { 200: MigrationMapSchema } } },
    ({ params: { id }, query: { cells } }) => {
      migrations.get(id);
      return migrations.map?.(id, cells) ?? UNKNOWN_MAP;
    },
  );
}
