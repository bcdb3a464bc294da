from messages import make

_DOUBLES = "sequence<double>"
JointState = make(
    "sensor_msgs.msg",
    "JointState",
    header="Header",
    name="sequence<string>",
    position=_DOUBLES,
    velocity=_DOUBLES,
    effort=_DOUBLES,
)
Image = make(
    "sensor_msgs.msg",
    "Image",
    header="Header",
    height="uint32",
    width="uint32",
    encoding="string",
    is_bigendian="uint8",
    step="uint32",
    data="sequence<uint8>",
)
CompressedImage = make("sensor_msgs.msg", "CompressedImage", header="Header", format="string", data="sequence<uint8>")
