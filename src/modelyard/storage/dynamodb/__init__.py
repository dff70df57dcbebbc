"""All stores over two DynamoDB tables, `PREFIX-metadata` and `PREFIX-predictions` (docs/decisions/0027)."""
