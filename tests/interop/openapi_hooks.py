"""What schemathesis must know besides the document: raw bodies of uploads are sent as they are."""

import schemathesis


@schemathesis.serializer("application/offset+octet-stream", "application/partial-upload")
def raw(context, value):
    return value if isinstance(value, bytes) else str(value).encode()
