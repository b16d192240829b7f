"""WebShop (Yao et al., 2022), embedded: no Java, no downloads. See [`WebShop`]."""

from .agent_gym import WebShopAgentGym
from .catalogue import Catalogue
from .environment import WebShop
from .full_catalogue import generate_catalogue
from .gym_shop import WebShopGym
from .offline_data import offline_trajectories
from .reward import purchase_reward
from .site import WebShopHTTP
from .small_catalogue import compact_vocabulary, generate_small_catalogue
from .text import spacy_nouns


__all__ = [
    "Catalogue",
    "WebShop",
    "WebShopAgentGym",
    "WebShopGym",
    "WebShopHTTP",
    "compact_vocabulary",
    "generate_catalogue",
    "generate_small_catalogue",
    "offline_trajectories",
    "purchase_reward",
    "spacy_nouns",
]
