"""Models that older versions of robosuite stored with their demonstrations, under the names of the one that is installed.

robosuite 1.5 put the arm's side into the gripper's names (`gripper0_finger_joint1` became `gripper0_right_finger_joint1`), named
the arm's origin (`robot0_right_center`), and moved what an arm stands on from assets/mounts to assets/bases. Order and number
of joints stayed, so that flat states fit. Source: the models of robosuite 1.4.1 and 1.5.2, compared name by name.
"""

from __future__ import annotations

from xml.etree import ElementTree

OLD_GRIPPER, GRIPPER = "gripper0_", "gripper0_right_"
ONLY_OLD = "gripper0_finger_joint1"
BASE_BODY, BASE_SITE = "robot0_link0", "robot0_right_center"
OLD_ASSETS, ASSETS = "/assets/mounts/", "/assets/bases/"


def current_model(xml: str) -> str:
    """A model file (XML) of robosuite 1.4 as 1.5 would have written it; any other as it is.

    Raises:
        ValueError: not XML.
    """
    if f'"{ONLY_OLD}"' not in xml:
        return xml
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise ValueError(f"model_file is no XML: {error}") from error
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "file":
                element.set(key, value.replace(OLD_ASSETS, ASSETS))
            elif value.startswith(OLD_GRIPPER):
                element.set(key, GRIPPER + value.removeprefix(OLD_GRIPPER))
    base = root.find(f".//body[@name='{BASE_BODY}']")
    if base is not None and root.find(f".//site[@name='{BASE_SITE}']") is None:
        base.append(ElementTree.Element("site", name=BASE_SITE, pos="0 0 0", size="0.01", rgba="0 0 0 0"))
    return ElementTree.tostring(root, encoding="unicode")
