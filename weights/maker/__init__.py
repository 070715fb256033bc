"""The parts of the `xlmr-mini` maker: corpus, rows, masking, recipe, training loop. Nothing else imports them."""
