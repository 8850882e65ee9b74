"""OpenAI's API in front of a TensorFlow Serving, ours or the stock one.

From the wire inwards:

- `command` runs it as a process, `app` puts endpoints, page and health together;
  `playground.html` is the page that it shows;
- an endpoint is a room: `completions`, `models`, `tokens`;
- `service` is what they share: it authenticates, limits and counts (`metrics`);
  `errors` is what is answered to any other request;
- `versions` is whom it asks, `prompts` reads what is continued;
- `transcript` turns tokens into text, offsets and log-probabilities.

It speaks gRPC to the model and imports no TensorFlow.
"""
