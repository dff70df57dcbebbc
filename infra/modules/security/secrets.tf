# The secret is made empty: its value never passes through Terraform or its state. Whoever starts the stack writes the key.
resource "aws_secretsmanager_secret" "admin_key" {
  name                    = var.admin_secret_name
  description             = "Key of the first administrator; the service stores only its hash"
  kms_key_id              = aws_kms_key.this["secrets"].arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
  tags                    = var.tags
}
