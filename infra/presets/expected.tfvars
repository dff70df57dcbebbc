# 2,000 requests a minute on average, 10,000 at the peak: EC2 with cached images (new tasks within 30 s), PostgreSQL.
compute  = "ecs-ec2"
database = "postgres"

sizing = {
  cpu           = 2048
  memory_mb     = 4096
  min_tasks     = 4
  max_tasks     = 20
  ephemeral_gib = 40
}
load = {
  peak_requests_per_minute = 10000
  cpu_ms_per_request       = 10
  largest_model_mb         = 5000
}
ec2                = { instance_type = "m7g.xlarge", max_instances = 20, warm = 2 }
database_sizing    = { instance_class = "db.m7g.large", storage_gb = 700, max_storage_gb = 2000 }
release            = { strategy = "CANARY", bake_minutes = 15, step_percent = 10, step_minutes = 5 }
monthly_budget_usd = 2500
clients = {
  standard = { rate_per_second = 50, burst = 100 }
  premium  = { rate_per_second = 200, burst = 400 }
}
