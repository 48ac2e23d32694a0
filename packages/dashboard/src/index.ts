export { loadDashboard, type DashboardFile, type DashboardFiles } from "./load-dashboard.ts";
