# The same load without servers: Lambda with 20 warm environments, DynamoDB, limits counted in a table.
compute  = "lambda"
database = "dynamodb"
valkey   = "none"

sizing = {
  cpu           = 2048
  memory_mb     = 3538
  min_tasks     = 20
  max_tasks     = 200
  ephemeral_gib = 10
}
load = {
  peak_requests_per_minute = 10000
  cpu_ms_per_request       = 30
  largest_model_mb         = 1000
}
lambda             = { start = "provisioned" }
monthly_budget_usd = 2000
clients = {
  standard = { rate_per_second = 50, burst = 100 }
  premium  = { rate_per_second = 200, burst = 400 }
}
