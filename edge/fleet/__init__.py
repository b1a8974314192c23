"""The publisher's side: releases signed and rolled out, records collected and verified."""
