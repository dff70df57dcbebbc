# About 100 requests a minute: two small tasks on Fargate, PostgreSQL, two zones. See the cost table of ../README.md.
compute  = "ecs-fargate"
database = "postgres"

sizing = {
  cpu           = 512
  memory_mb     = 1024
  min_tasks     = 2
  max_tasks     = 4
  ephemeral_gib = 21
}
load = {
  peak_requests_per_minute = 500
  cpu_ms_per_request       = 10
  largest_model_mb         = 1000
}
network            = { zones = 2 }
monthly_budget_usd = 600
clients = {
  standard = { rate_per_second = 10, burst = 20 }
}
