from messages import make

MultiArrayLayout = make("std_msgs.msg", "MultiArrayLayout", data_offset="uint32")
Float64MultiArray = make("std_msgs.msg", "Float64MultiArray", layout=MultiArrayLayout, data="sequence<double>")
