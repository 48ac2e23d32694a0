/** Where the page begins. */
import { App } from "./app.ts";

new App({
  main: placeOf("main"),
  connection: placeOf("connection"),
  forgetToken: placeOf("forget-token"),
}).start();

function placeOf(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element;
}
