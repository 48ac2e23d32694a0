import type { FastifyInstance } from "fastify";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Answered without a token, for probes: tells nothing about guests. */
    readonly withoutToken?: boolean;
  }
}

export type HttpServer = FastifyInstance;
