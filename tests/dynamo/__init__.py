"""DynamoDB (and S3) on this machine: moto's server in a process of its own, which can be told to fail. Moto is an
emulator: it shows that our requests are what DynamoDB's documentation says, not what AWS answers."""
