"""An S3 service on this machine, and a wire to it that can be cut. Moto is an emulator: it shows that our requests are
what S3's documentation says, not what AWS answers."""
