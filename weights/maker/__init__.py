"""The parts of the `xlmr-mini` maker: corpus, rows, initial weights, training loop. Nothing else imports them."""
