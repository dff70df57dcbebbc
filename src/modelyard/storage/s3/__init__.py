"""Artifacts in S3, or in a service that speaks its protocol. boto3 is imported when the first request is made."""
