import { UNKNOWN_MAP } from "@vmferry/protocol";
import type { HttpServer } from "./http-server.ts";
import { getMigrationMapSchema } from "./migration-schemas.ts";
import type { MigrationService } from "./migration-service.ts";

/** A picture of what has been sent, drawn for whoever asks. */
export function registerMapRoute(app: HttpServer, migrations: MigrationService): void {
  app.get<{ Params: { id: string }; Querystring: { cells: number } }>(
    "/v1/migrations/:id/map",
    { schema: getMigrationMapSchema },
    ({ params: { id }, query: { cells } }) => {
      migrations.get(id);
      return migrations.map?.(id, cells) ?? UNKNOWN_MAP;
    },
  );
}
