"""Goals beside the products that meet them."""


def own_options(goal, product):
    return {
        name: value for name, values in product["options"].items() for value in values if value in goal["goal_options"]
    }
